# Three lanes side by side on four GPUs, then the runs that need all four; about 20 minutes, then a file `finished`.
# Usage: setsid bash session_4.sh SECONDS_OF_LANES SECONDS_OF_ALL
cd "$(dirname "$0")" || exit 1
site=$HOME/site
export PYTHONPATH=$site HF_HUB_OFFLINE=1
torch=$(python3 -c 'import torch, pathlib; print(pathlib.Path(torch.__file__).parents[1])')
python3 -m compileall -q -j 32 "$site" "$torch" >/dev/null 2>&1
nvidia-smi >"$HOME/nvidia-smi.txt"; nvidia-smi topo -m >>"$HOME/nvidia-smi.txt" 2>&1
for lane in 0 1 2,3; do
  LAB_LANE=${lane//,/} CUDA_VISIBLE_DEVICES=$lane python3 session_4.py "$1" >"$HOME/lane${lane//,/}.txt" 2>&1 &
done
wait
LAB_LANE=0123 CUDA_VISIBLE_DEVICES=0,1,2,3 python3 session_4.py "$2" >"$HOME/lane0123.txt" 2>&1
touch "$HOME/finished"
