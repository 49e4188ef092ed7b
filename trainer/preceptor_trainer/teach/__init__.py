"""Post-training the teacher by GRPO on labels that are known by construction: `preceptor teach`."""
