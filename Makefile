# SPDX-License-Identifier: Apache-2.0
# Short names for what cmake, ctest and tools/ do.  Packages that are missing are installed by
# `tools/setup.sh`.
PREFIX ?= /usr/local
BUILD := build

DEMO := $(BUILD)/wan generate -p "a red star moving left on a blue background" --seed 1 -y -o demo.mp4

.PHONY: all demo check check-arm check-gpu bench fuzz install clean

all:
	@tools/setup.sh build
	@test -f $(BUILD)/build.ninja || cmake --preset release -DBUILD_TESTING=OFF
	@cmake --build --preset release

demo: all
	@$(DEMO)
	@echo
	@echo 'The clip is in $(CURDIR)/demo.mp4; this repeats it:'
	@echo '    $(DEMO)'

check:
	@tools/check.sh

# 77: skipped, and it has said why.
check-arm:
	@tools/check_arm.sh || [ $$? = 77 ]

check-gpu: all
	@cmake -B $(BUILD) -DBUILD_TESTING=ON > /dev/null && cmake --build $(BUILD) --target wan-check
	@tools/check_gpu.sh

bench: all
	@bench/run.sh

fuzz:
	@tests/fuzz/run.sh

install: all
	cmake --install $(BUILD) --prefix $(PREFIX)

clean:
	rm -rf $(BUILD) build-arm build-dev build-fuzz demo.mp4
