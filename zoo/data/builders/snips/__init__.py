"""SNIPS: requests to a voice assistant with intent and slots; the builder is in snips_dataset_builder.py."""
