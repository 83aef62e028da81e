"""The command line: a file a command; each parses, calls one function, and prints.

main       the command `mc1opt`: its subcommands and error handling
options    the options that several commands share
values     numbers and durations of options
run        `mc1opt run`
show       `mc1opt show`
studies    `mc1opt studies`, `mc1opt studies delete`
presets    `mc1opt presets`, `mc1opt presets show`, `mc1opt presets run`
data       `mc1opt data`
doctor     `mc1opt doctor`
dashboard  `mc1opt dashboard`
mirror     `mc1opt mirror`
retrain    `mc1opt retrain`
export     `mc1opt export`
predict    `mc1opt predict`
evaluate   `mc1opt evaluate`
replay     `mc1opt replay`
signals    signals that stop long commands cleanly
"""
