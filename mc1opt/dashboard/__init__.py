"""The contents of optuna-dashboard's pages: notes, figures, files.

pages    keeps what the dashboard shows of a study up to date
notes    notes on a study and on its best trials
files    files attached to the best trials
server   serves optuna-dashboard
"""
