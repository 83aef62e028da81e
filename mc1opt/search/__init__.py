"""The search: proposing, pruning, confirming.

command     from the options of `run` to a running search
settings    what is asked of a search, and what holds
run         a search from its beginning to its end: threads, totals, deadlines
objective   one trial: ask, config, train, report, prune, tell
endings     what ends a search early: nothing new, or too many failures
confirm     the best trials trained again with new seeds
definition  study definitions: finding and loading them
storable    what a search space suggests, as the database gives it back
sampling    samplers with a seed for every draw; pruners
local       a sampler that makes few changes at a time to the best configs
study       creating a study or going on with the same one; interrupted trials
observers   who is told what happens in a search
plan        what a search will cost, before it starts
importance  which parameters matter
space       where study files of before import suggestions from
catalogue   what there is: study definitions and stored studies
"""
