"""Where a training happens: processes that train, and the pool of them.

speed     how fast this machine trains, for the plan
pool      the workers: who trains what, and what happens when one dies
child     one worker process, as its parent sees it
process   the worker process itself
protocol  what they say to each other
memory    a training with its results, in smaller steps where memory runs out
crew      the threads that keep the workers busy
stop      the flag by which signals and threads end long work
"""
