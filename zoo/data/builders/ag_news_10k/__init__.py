"""AG News, 10,000 training examples: topics of news; the builder is in ag_news_10k_dataset_builder.py."""
