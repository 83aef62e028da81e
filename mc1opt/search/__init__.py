"""The search: proposes, prunes and confirms trials.

command          turns the options of `run` into a search
settings         the options of a search, and the settings resolved from them
run              a search from start to end: threads, totals, deadlines
objective        one trial: ask, config, train, report, prune, tell
stop_conditions  ends a search early: good enough, nothing new left, or too many failures
confirm          trains the best trials again with new seeds
definition       finds and loads study definitions
aim              what a study file says of its metric, class weights and limits
price            what a trial may cost by default, from the size and number of the images
incumbents       which trials are trained twice, and what they are worth to the sampler then
json_values      suggested values, exactly as the database returns them
warm_start       what a study that is begun from another one knows
sampling         samplers with a seed for every draw
pruning          which trials are ended early
local            a sampler that makes few changes at a time to the best configs
study            creates a study, or resumes it
observers        callbacks for the events of a search
plan             the expected cost of a search, before it starts
forecast         what another half hour would probably bring, after it
importance       parameter importances
space            kept so that older study files can still import it
catalogue        lists study definitions and stored studies
"""
