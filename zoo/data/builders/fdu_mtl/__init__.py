"""FDU-MTL: reviews of 16 kinds of things, positive or negative; the builder is in fdu_mtl_dataset_builder.py."""
