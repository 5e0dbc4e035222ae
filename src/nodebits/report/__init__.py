"""What is said of a model or a measurement: plain data, pages and charts."""
