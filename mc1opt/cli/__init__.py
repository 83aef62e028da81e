"""The command line: one file per command, which parses, calls one function, and prints.

main       the command `mc1opt`: its commands, and exit codes of errors
options    options that several commands share
values     parses numbers and times
run        `mc1opt run`
api        `mc1opt.run`: the same search from Python
show       `mc1opt show`
studies    `mc1opt studies`, `mc1opt studies delete`
presets    `mc1opt presets`, `mc1opt presets show`, `mc1opt presets run`
data       `mc1opt data`
doctor     `mc1opt doctor`
dashboard  `mc1opt dashboard`
mirror     `mc1opt mirror`
retrain    `mc1opt retrain`
explain    `mc1opt explain`
export     `mc1opt export`
predict    `mc1opt predict`
evaluate   `mc1opt evaluate`
replay     `mc1opt replay`
report     `mc1opt report`
signals    ends long commands cleanly on a signal
"""
