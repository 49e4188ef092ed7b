"""The parts of the benchmark `growth`: each measures one part of Preceptor over a range of sizes."""
