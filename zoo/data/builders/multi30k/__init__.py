"""Multi30k task 1: image captions in English, German and French; the builder is in multi30k_dataset_builder.py."""
