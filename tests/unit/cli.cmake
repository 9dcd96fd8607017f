# SPDX-License-Identifier: Apache-2.0
wan_unit_test(params wan_pipeline)
