"""Optuna-dashboard's pages: notes, figures, files.

pages    what the dashboard shows of a study, kept up to date
figures  its figures: a study's record to Plotly
notes    its notes on a study and on the best trials
files    its files of the best trials
server   serving optuna-dashboard
"""
