from preceptor_trainer.cli import main

main()
