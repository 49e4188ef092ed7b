"""What `preceptor bench chaos` is made of."""
