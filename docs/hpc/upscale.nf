// nextflow run upscale.nf --low 'low/*.fits' --high high     (-profile for the executor, with -resume goes on)
params.low = 'low/*.fits'
params.high = 'high'

process UPSCALE {
    cpus 4
    memory '8 GB'
    time '1h'
    publishDir params.high, mode: 'copy'
    // 5: resources ran out; 143: the node's time was up
    errorStrategy { task.exitStatus in [5, 143] ? 'retry' : 'finish' }
    maxRetries 2

    input:
    path low

    output:
    path "${low.simpleName}_x4.fits"
    path "${low.simpleName}_x4.fits.json"

    script:
    """
    sciresdiff upscale ${low} --output ${low.simpleName}_x4.fits --scale 4 --threads ${task.cpus} --quiet
    """
}

workflow {
    UPSCALE(Channel.fromPath(params.low))
}
