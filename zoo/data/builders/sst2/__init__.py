"""SST-2: sentences of film reviews, positive or negative; the builder is in sst2_dataset_builder.py."""
