"""The zoo's own tensorflow-datasets builders, one package folder each, as TFDS wants them."""
