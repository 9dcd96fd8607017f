# SPDX-License-Identifier: Apache-2.0
wan_fuzz(tokenizer wan_text)
