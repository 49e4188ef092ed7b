from preceptor_client.collector import collect_less
from preceptor_trainer.cli import main

collect_less()
main()
