"""BBC News: whole articles, their titles and topics; the builder is in bbc_news_dataset_builder.py."""
