"""Bulk work on JSONL files: any number of lines in, one line out for each, in their order, resumable at every moment.

    lines.read_lines -> questions.questions -> direct.answers | batched.answers -> output.Output
                                 ^                                                     |
                                 +------ what an earlier call has answered ------------+

Nothing here holds more than a bounded number of lines.
"""
