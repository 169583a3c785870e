from batchmill.cli import main

main()
