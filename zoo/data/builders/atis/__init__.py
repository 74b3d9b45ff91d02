"""ATIS: questions to an airline with intent and slots; the builder is in atis_dataset_builder.py."""
