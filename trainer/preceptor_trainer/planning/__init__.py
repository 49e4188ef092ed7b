"""What a run takes, before it is started: tokens, FLOPs, GPUs, memory, hours. Importable without torch.

    TrainConfig + PlanSettings --stages--> work per step --capacity--> GPU-seconds --plan--> GPUs per pool, hours

`models` has what a decoder costs per token, `calls` what judging a cohort asks, `stages` what a step does, `capacity`
how long a GPU takes over it, `estimates` the shares of the ideal that are reached (measured or assumed), `plan` puts it
together and `show` makes tables of it. All of it is arithmetic; `settings` and `estimates` read files.
"""
