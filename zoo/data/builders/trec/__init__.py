"""TREC: questions and what kind of answer they want; the builder is in trec_dataset_builder.py."""
