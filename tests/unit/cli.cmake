wan_unit_test(params wan_pipeline)
