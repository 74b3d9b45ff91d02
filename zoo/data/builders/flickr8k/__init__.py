"""Flickr8k: photographs with five English captions each; the builder is in flickr8k_dataset_builder.py."""
