"""The parts of `make_sample_models.py`: tasks, tokenizer, sampling, and the two trainings."""
