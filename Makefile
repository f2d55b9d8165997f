# The four commands of a developer; each makes its own virtual environment. A machine needs Python, a C++ compiler and
# make for them, nothing else.
#   make validate   theory against simulation at width 10,000: a table, results/validate.nc, results/validate.png
#   make test       the Python tests and every example of the documentation
#   make bench      igbfast against NumPy and PyTorch in one run: a table, results/bench.json, results/bench.md
#   make lint       what must hold before a commit: ruff, mypy, clang-format (make format repairs what can be repaired)
PYTHON ?= python3
VENV ?= .venv

bin := $(VENV)/bin
pip := $(bin)/pip install --quiet --disable-pip-version-check --constraint constraints.txt
sources := $(shell find csrc python cmake -name '*.py' -o -name '*.pyi' -o -name '*.cpp' -o -name '*.h' -o -name '*.cu' \
                   -o -name '*.cmake' -o -name py.typed) CMakeLists.txt pyproject.toml
cxx_files = $(shell find csrc tests \( -name '*.c' -o -name '*.cpp' -o -name '*.h' -o -name '*.cu' \))

.PHONY: validate test bench lint format clean install
.DELETE_ON_ERROR:

validate: $(VENV)/.installed $(VENV)/.extra-plot
	@mkdir -p results
	$(bin)/igbfast validate --output results/validate.nc --figure results/validate.png

# What runs on a GPU is tested by kernels compiled for the host, where there is torch, which they need.
test: $(VENV)/.installed $(VENV)/.extra-test $(if $(wildcard $(VENV)/.extra-torch),$(VENV)/.host-kernels)
	$(bin)/python -m pytest -q

bench: $(VENV)/.installed $(VENV)/.extra-torch
	$(bin)/python -m bench.compare

lint: $(VENV)/.extra-dev
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy
	$(bin)/clang-format --dry-run -Werror $(cxx_files)

format: $(VENV)/.extra-dev
	$(bin)/ruff check --fix .
	$(bin)/ruff format .
	$(bin)/clang-format -i $(cxx_files)

install: $(VENV)/.installed

clean:
	rm -rf $(VENV) build

$(bin)/python:
	$(PYTHON) -m venv $(VENV)

# What pyproject.toml asks for to build. Kept in the environment, so that CMake rebuilds only what has changed.
$(VENV)/.build-tools: | $(bin)/python
	@echo "Installing the build tools into $(VENV)"
	$(pip) scikit-build-core pybind11 cmake ninja \
	    "scipy-openblas32; platform_machine in 'x86_64 AMD64 aarch64 arm64'"
	@touch $@

$(VENV)/.installed: $(sources) | $(VENV)/.build-tools
	@echo "Building and installing igbfast into $(VENV)"
	$(pip) --no-build-isolation .
	@touch $@

# The CUDA kernels as a Python module that runs them on the host.
$(VENV)/.host-kernels: $(sources) $(wildcard tests/cuda/host_*) tests/cuda/CMakeLists.txt | $(VENV)/.build-tools
	@echo "Building the CUDA kernels for the host into build/host-kernels"
	@PATH="$(abspath $(bin)):$$PATH" cmake -S . -B build/host-kernels -G Ninja --log-level=WARNING \
	    -D Python_EXECUTABLE="$(abspath $(bin))/python" -D CMAKE_BUILD_TYPE=Release -D IGBFAST_PYTHON=OFF \
	    -D IGBFAST_CUDA=OFF -D IGBFAST_HOST_KERNELS=ON
	@PATH="$(abspath $(bin)):$$PATH" cmake --build build/host-kernels --target _cuda_host -- --quiet
	@touch $@

# What an extra of the installed package asks for (its own version is there already, so only the rest is fetched).
$(VENV)/.extra-%: pyproject.toml constraints.txt | $(VENV)/.installed
	@echo "Installing what igbfast[$*] needs into $(VENV)"
	$(pip) 'igbfast[$*]'
	@touch $@
