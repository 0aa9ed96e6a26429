"""What is measured about tables, each number with an interval and an n."""
