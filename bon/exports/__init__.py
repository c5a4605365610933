"""Outputs: trainers' row formats, files and folders of them, the dataset card, the Hub."""
