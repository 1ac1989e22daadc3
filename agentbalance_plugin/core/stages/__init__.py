"""The stages of the method, one module each, in the order in which they act.

    p(design | query) = p_sel(pool) · p_match(backbones) · p_gate(agents) · p_topo(hops, edges)
                        · p_late(late gates)

selection -> matching -> representation -> gating -> topology -> late_gates. Every function is
written once over the array API: numpy when planning, torch when training. `factors` adds them up,
`draw` samples designs, `stage_config` switches stages for ablations.

After AgentBalance (arXiv 2512.11426); late gates are an addition.
"""
