"""Long campaigns against real stores: scripts that can be stopped and resumed, and run beside other work.

python -m tests.campaigns kills --backend file --count 5000 --state kills-file.json
"""
