"""The application, with a component twice, in which there is another."""
