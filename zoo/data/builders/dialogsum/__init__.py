"""DialogSum: dialogues of daily life with summaries; the builder is in dialogsum_dataset_builder.py."""
