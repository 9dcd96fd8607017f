# SPDX-License-Identifier: Apache-2.0
wan_unit_test(noise wan_sample)
wan_unit_test(solver wan_sample)
