"""What a version must not break, whatever it gains: one module a guardrail, one form of result for all."""
