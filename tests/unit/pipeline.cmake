# SPDX-License-Identifier: Apache-2.0
wan_unit_test(rules wan_pipeline)
wan_unit_test(vram wan_pipeline)
wan_unit_test(precision wan_pipeline)
