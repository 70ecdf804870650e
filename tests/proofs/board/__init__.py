"""The application whose queries the proof of subscriptions follows."""
