"""`preceptor doctor CONFIG`: whether a run can start, before anything expensive does.

    versions   torch, transformers, what logging and tracing need
    policy     configuration and tokenizer of the model: context, tokens, sizes
    room       memory and disk
    documents  the first windows
    services   Redis, workers, the rewrite service, the policy's vLLM
    judging    one real cohort through the queue, as the trainer submits it

Each module takes the configuration (and what those above it found) and yields `Check`s; `examine` puts them in order.
Nothing is trained, and of the model no more is fetched than its configuration and its tokenizer.
"""
