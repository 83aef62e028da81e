"""Worker processes that train, and the pool of them.

engine    from the options of the command line to a pool
pool      the pool of workers: assigns trainings, fails those whose worker dies, starts a new worker
ray_pool  a pool whose workers are actors of a Ray cluster
relay     what such an actor does: it has a worker process on its machine
child     one worker process, as its parent sees it
process   the main function of a worker process
protocol  the messages between the two
train     trains in the pool and collects results; retries with micro-batches when out of memory
threads   the threads that keep the workers busy
stop      the flag by which signals, threads and a deadline cancel long work
speed     seconds of an epoch on this machine, for the plan
"""
