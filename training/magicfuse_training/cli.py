# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""`magicfuse-train`: trains, exports and scores bundles, and converts the authors' weights.

magicfuse-train make RECIPE --data DATA --out BUNDLE   all of the steps below except the scores
magicfuse-train stage autoencoder --data KIND:ROOT   then ikr, ckg, mkf, one_step, few_step
magicfuse-train export --run runs/nano --out engines/nano
magicfuse-train quantize --bundle engines/nano --data DATA
magicfuse-train score --bundle engines/nano --data KIND:ROOT --record
magicfuse-train evaluate --bundle engines/nano --data KIND:ROOT --out report
magicfuse-train thermal --bundle engines/nano --data KIND:ROOT --page thermal.md
magicfuse-train downstream --bundle engines/nano --data KIND:ROOT
"""

from __future__ import annotations

from magicfuse_ros.command_line import CommandLine
from magicfuse_training.commands.ablate import ablate_command
from magicfuse_training.commands.adapt import adapt_command
from magicfuse_training.commands.baselines import baselines_command
from magicfuse_training.commands.bench_eager import SeveralPrecisions, bench_eager_command
from magicfuse_training.commands.check_data import check_data_command
from magicfuse_training.commands.check_export import SeveralNames, check_export_command
from magicfuse_training.commands.convert_official import convert_official_command
from magicfuse_training.commands.cost import cost_command
from magicfuse_training.commands.degradations import degradations_command
from magicfuse_training.commands.distill import distill_command
from magicfuse_training.commands.downstream import downstream_command
from magicfuse_training.commands.evaluate import evaluate_command
from magicfuse_training.commands.export import export_command
from magicfuse_training.commands.make import make_command
from magicfuse_training.commands.quantize import quantize_command
from magicfuse_training.commands.score import score_command
from magicfuse_training.commands.stage import stage_command
from magicfuse_training.commands.thermal import thermal_command

app = CommandLine(
    name="magicfuse-train",
    help="Trains, scores and exports MagicFuse bundles.",
    pretty_exceptions_show_locals=False,
)
app.command("make")(make_command)
app.command("stage")(stage_command)
app.command("adapt")(adapt_command)
app.command("check-data")(check_data_command)
app.command("distill")(distill_command)
app.command("ablate")(ablate_command)
app.command("baselines")(baselines_command)
app.command("cost")(cost_command)
app.command("bench-eager", cls=SeveralPrecisions)(bench_eager_command)
app.command("degradations")(degradations_command)
app.command("export")(export_command)
app.command("check-export", cls=SeveralNames)(check_export_command)
app.command("quantize")(quantize_command)
app.command("score")(score_command)
app.command("evaluate")(evaluate_command)
app.command("downstream")(downstream_command)
app.command("thermal")(thermal_command)
app.command("convert-official")(convert_official_command)

if __name__ == "__main__":
    app()
