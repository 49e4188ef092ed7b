"""What `preceptor bench queue` is made of."""
