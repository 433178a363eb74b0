"""The contract under every job: outcomes, budget, runner, markers, locks, ledger, settings.

The ground floor of the house: nothing here imports anything else of ours.
"""
