"""The agent's own metrics, and the merge of its, Envoy's and the application's into one scrape."""
