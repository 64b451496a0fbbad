"""Long campaigns against real stores: scripts that can be stopped and resumed, and run while other work goes on.

python -m tests.campaigns kills --backend file --count 5000 --state kills-file.json
"""
