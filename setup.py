# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

from glob import glob

from setuptools import find_packages, setup

NAME = "magicfuse_ros"
SHARE = f"share/{NAME}"

setup(
    name=NAME,
    version="0.1.0",
    description="Single image fusion and segmentation for ROS 2 vehicles with one visible camera",
    license="Apache-2.0",
    maintainer="MagicFuse ROS maintainers",
    maintainer_email="magicfuse@users.noreply.github.com",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    package_data={NAME: ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (SHARE, ["package.xml"]),
        (f"{SHARE}/launch", glob("launch/*.py")),
        (f"{SHARE}/config", glob("config/*.*")),
        (f"{SHARE}/engines/nano", glob("engines/nano/*.*")),
    ],
    python_requires=">=3.10",
    # The ROS packages come from the ROS installation; wheels of them would shadow it.
    install_requires=[
        "numpy",
        "opencv-python-headless",
        "pydantic>=2.5",  # older ones lack JsonValue
        "typer>=0.12.4",  # older ones do not know "Path | None"
        "rich>=12.3",  # Ubuntu 22.04 has 11.2
        # Older ones lack opset8 at this place, or drop inputs that a network does not read.
        'openvino>=2026; platform_machine != "aarch64"',
        # Older ones end the process on ARM CPUs without SVE (openvino PR 36931).
        'openvino>=2026.4; platform_machine == "aarch64"',
        "av>=17",  # older ones decode every video as BT.601 in limited range
        "pillow>=10.1",
        "rosbags>=0.11.7",  # older ones bring another Zstandard
        "lz4",
        "ruamel.yaml",
    ],
    extras_require={
        "onnxruntime": ["onnxruntime"],
        "plot": ["matplotlib"],
        # The CUDA runtime of 12 serves every driver, that of 13 only those from 580 on.
        "tensorrt-rtx": ["tensorrt-rtx", "nvidia-cuda-runtime-cu12", "onnx"],
        "tensorrt": ["onnx"],  # TensorRT and the CUDA runtime come with JetPack
    },
    zip_safe=False,
    entry_points={
        "console_scripts": [
            "fuse_node = magicfuse_ros.start:fuse_node",
            "fuse_cameras = magicfuse_ros.start:fuse_cameras",
            "ground_cloud_node = magicfuse_ros.start:ground_cloud_node",
            "play_node = magicfuse_ros.start:play_node",
            "replay_node = magicfuse_ros.start:replay_node",
            "magicfuse = magicfuse_ros.start:magicfuse",
        ],
    },
)
