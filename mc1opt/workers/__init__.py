"""Worker processes that train, and the pool of them.

speed     seconds of an epoch on this machine, for the plan
pool      the pool of workers: assigning trainings, replacing workers that die
child     one worker process, as its parent sees it
process   the worker process itself
protocol  the messages between the two
memory    a training with its results, in micro-batches when out of memory
crew      the threads that keep the workers busy
stop      the flag by which signals, threads and a deadline end long work
"""
