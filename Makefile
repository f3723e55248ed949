# make setup   runtime and ROS 2 (as wheels) in .venv, for a machine without ROS
# make demo    a real video through the node; results in out/demo  [INPUT=video, folder or bag] [TOPIC=of a bag] [DURATION=60]
# make tools   what the tests and the training package need, with torch (2.8 GB)  [ROS=jazzy]
# make test    the same, then all tests  [ROS=jazzy]
# make lint    ruff and mypy
# make faults  the fault tests; writes their table into docs/faults.md
# make soak    the node under random faults; results in out/soak  [MINUTES=30] [SEED=1] [CAMERAS=4: in one process, with faults in one of them]
PYTHON ?= python3
INPUT ?=
TOPIC ?=
DURATION ?= 60
MINUTES ?= 30
SEED ?= 1
CAMERAS ?=
ROS = kilted
# A path with spaces, or with a ~ that not every shell expands.
QUOTED_PYTHON = "$(patsubst ~/%,$(HOME)/%,$(PYTHON))"
VENV := .venv$(if $(filter-out kilted,$(ROS)),-$(ROS))
BIN := $(VENV)/bin
# Python compiles what it imports; compiling all 17,000 files now would take half of the setup.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile

# The venv stands alone, also in a shell where a ROS is sourced.
unexport PYTHONPATH PYTHONHOME AMENT_PREFIX_PATH RMW_IMPLEMENTATION _ROS_WHEELS_BOOTSTRAP_COMPLETE
unexport LD_LIBRARY_PATH ROS_DISTRO ROS_SECURITY_ENABLE
export PIP_USER = 0

# A copy of this folder needs a venv of its own, and so does another Python.
WHERE_AND_WHAT = echo "$(CURDIR) $$($(VENV)/bin/python -c 'import pip, sys; print(*sys.version_info)' 2>/dev/null)"
MADE := $(shell cat $(VENV)/made.txt 2>/dev/null)
ifneq ($(MADE),$(shell $(WHERE_AND_WHAT)))
MADE :=
$(shell rm -f $(VENV)/*.stamp)
endif

.PHONY: setup tools demo test lint faults soak

setup: $(VENV)/setup.stamp

$(VENV)/setup.stamp: setup.py requirements/ros-$(ROS).txt
	@$(QUOTED_PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "$(PYTHON) is not Python 3.10 to 3.13: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@# A venv of another Python or place would keep it.
	@[ "$(MADE)" ] && [ "$$($(BIN)/python -V 2>&1)" = "$$($(QUOTED_PYTHON) -V)" ] || $(QUOTED_PYTHON) -m venv --clear $(VENV)
	@$(WHERE_AND_WHAT) > $(VENV)/made.txt
	$(PIP) -r requirements/ros-$(ROS).txt -e .
	touch $@

$(VENV)/demo.stamp: $(VENV)/setup.stamp requirements/demo.txt
	$(PIP) --no-deps -r requirements/demo.txt
	touch $@

$(VENV)/test.stamp: $(VENV)/setup.stamp requirements/test.txt $(wildcard training/pyproject.toml)
	$(PIP) -r requirements/test.txt $(if $(wildcard training/pyproject.toml),-e training)
	touch $@

tools: $(VENV)/test.stamp

demo: $(VENV)/$(if $(INPUT),setup,demo).stamp
	$(BIN)/python -m magicfuse_ros.demo --seconds $(DURATION) $(if $(TOPIC),--topic "$(TOPIC)") $(if $(INPUT),"$(INPUT)")

test: $(VENV)/test.stamp
	@# Three workers keep two cores busy: tests of nodes wait a quarter of their time.
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/mypy

faults: $(VENV)/test.stamp
	$(BIN)/python test/fault_table.py

soak: $(VENV)/test.stamp
	$(BIN)/python benchmarks/soak$(if $(CAMERAS),_cameras).py --minutes $(MINUTES) --seed $(SEED) $(if $(CAMERAS),--cameras $(CAMERAS))
