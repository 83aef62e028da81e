"""Optuna-dashboard's pages: notes, figures, files.

pages    keeping what the dashboard shows of a study up to date
figures  its figures: study record -> Plotly
notes    its notes on a study and its best trials
files    its files of the best trials: pictures, history, config
server   serving optuna-dashboard
"""
